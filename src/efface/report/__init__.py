"""Tables, figures and one HTML page, computed only from the values that `page.write` gets."""
