"""Publishing on the Hub: the model card, licences, what is sent. Begin with hub.py."""
