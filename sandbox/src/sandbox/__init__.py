"""A local Brevo with faults on request, what Twilio would send, and a day in a contact centre."""
