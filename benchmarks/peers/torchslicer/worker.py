"""A worker of TorchSlicer; address and port are in the environment."""

import torch
import torchslicer as ts

if __name__ == "__main__":
    torch.set_num_threads(1)
    ts.run_worker(device="cpu")
