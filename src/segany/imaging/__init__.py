"""Images and video frames: decoding, resizing, preprocessing, upscaling and measuring masks, drawing."""
