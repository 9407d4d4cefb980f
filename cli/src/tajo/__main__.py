"""`python -m tajo`."""

from tajo.main import main

main()
