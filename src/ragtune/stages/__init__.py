"""The stages of a run. Begin with order.py (the road), then road.py (how a stage is made) and run.py."""
