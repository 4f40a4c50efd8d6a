"""What comes in: messages are taken in turns, judged, and handed to the methods they are for."""
