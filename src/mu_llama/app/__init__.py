"""The demo: talk about a track in the browser. `page` alone imports gradio."""
