"""The application in the browser: HTTP and WebSocket over a project, its model and its jobs."""
