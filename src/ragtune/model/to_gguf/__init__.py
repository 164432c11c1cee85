"""Writing a model as GGUF, for llama.cpp and Ollama. Begin with write.py."""
