"""What the services say to each other, and how they reach the bus.  No service imports another."""
