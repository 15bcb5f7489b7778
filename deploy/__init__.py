"""The commands behind the make targets that build, validate, deploy and release."""
