"""What CONTRIBUTING.md says has to be written for a model family, kept so that tests try it."""
