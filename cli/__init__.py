"""The words a user types. The only room that prints, reads the environment or exits."""
