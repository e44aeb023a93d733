"""What is in production as the guide's tree of files."""
