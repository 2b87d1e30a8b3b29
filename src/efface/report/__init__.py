"""Tables, figures and one HTML page, from values alone: `page.write`."""
