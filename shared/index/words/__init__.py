"""The words of listings: encoded texts, which listing has which word, and searches by photo and words together."""
