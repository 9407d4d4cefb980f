"""The tajo command line: run the services, check the mapping, look after the broker."""
