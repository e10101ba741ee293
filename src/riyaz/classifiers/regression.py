"""Multinomial logistic regression with an L2 penalty, by L-BFGS: the optimum of scikit-learn's LogisticRegression, with
rows read in parts, so that memory does not grow with rows times labels."""

import numpy as np
from threadpoolctl import threadpool_limits

PART = 2**22  # logits in memory at once
STEPS = 100  # of the search, at most
CHANGE = 1e-6  # relative change of the loss below which the search ends


@threadpool_limits.wrap(limits=1)  # products are so small that two threads take five times as long as one
def fit_regression(
    features: np.ndarray, targets: np.ndarray, labels: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (d, labels) and bias (labels,) float32 with the least sum of the rows' log-losses + |weights|² / (2
    strength), for features (n, d) float32 and targets (n,) below `labels`; `strength` is scikit-learn's C."""
    from scipy.optimize import minimize

    size, step = features.shape[1], max(1, PART // labels)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = _parts(flat.astype(np.float32), size, labels)
        total, slope = 0.5 / strength * float(np.vdot(weights, weights)), weights / strength
        slope_bias = np.zeros(labels)
        for begin in range(0, len(features), step):
            rows, right = features[begin : begin + step], targets[begin : begin + step]
            places = np.arange(len(rows)), right
            logits = rows @ weights + bias
            logits -= logits.max(axis=1, keepdims=True)
            own = logits[places].sum(dtype=np.float64)
            np.exp(logits, out=logits)
            sums = logits.sum(axis=1, keepdims=True)
            total += float(np.log(sums).sum(dtype=np.float64) - own)
            logits /= sums
            logits[places] -= 1
            slope += rows.T @ logits
            slope_bias += logits.sum(axis=0, dtype=np.float64)
        return total, np.r_[slope.ravel(), slope_bias].astype(np.float64)

    options = {"maxiter": STEPS, "ftol": CHANGE, "gtol": 0.0}
    result = minimize(loss, np.zeros((size + 1) * labels), jac=True, method="L-BFGS-B", options=options)
    return _parts(result.x.astype(np.float32), size, labels)


def _parts(flat: np.ndarray, size: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    return flat[: size * labels].reshape(size, labels), flat[size * labels :]
