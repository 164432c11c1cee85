"""Models: found, loaded, adapted, planned for, merged. Begin with load.py, lora.py and plan.py."""
