"""What split learning is compared with: federated averaging, FedProx and large-batch SGD over the uncut network.

They train the network of a study on the same rows, in the same order, with the same optimizer, and are metered and
logged alike.
"""
