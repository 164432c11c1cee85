"""Training an adapter on packed rows."""
