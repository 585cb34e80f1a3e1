"""Training the regressors: on synthetic people, and on people in photos whom fits have labelled."""
