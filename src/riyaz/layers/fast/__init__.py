"""How training is made fast: sums of gradients in place, kernels of C++, results computed again, threads."""
