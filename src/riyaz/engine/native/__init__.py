"""The Runner in C++ (native/): packed weights, torch-free."""
