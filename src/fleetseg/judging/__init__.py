"""What is counted of a model before it may drive, on the server and in a vehicle alike."""
