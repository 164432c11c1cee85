"""From documents and questions to examples, and an index that stays. Begin with build.py."""
