"""Twilio's OpenAPI is not ours to ship: without TAJO_SPECS_DIR what needs it is left out, and that is said."""

import os

collect_ignore = [] if os.environ.get("TAJO_SPECS_DIR") else ["test_poller_requests.py"]
