"""Images and frames of video: reading, resizing, measuring masks on them, drawing."""
