"""Training an adapter on packed rows. Begin with train.py."""
