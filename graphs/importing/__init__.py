"""From any traceable `torch.nn.Module` to a genome.

| module | what it does |
|---|---|
| `tracing` | the module's forward pass as graphs of `torch.fx`, in train and in eval mode |
| `copying` | a copy of the module to work on |
| `observing` | what comes out of a call that has no shape rule, for two batch sizes |
| `exported` | the same by `torch.export`, for forward passes that `torch.fx` cannot trace |
| `stand_ins` | what stands for traced values on the way |
| `walking` | from call to call through a traced graph |
| `layers`, `calls` | the tables: which layers, functions and methods have a kind |
| `lowering` | the nodes that come about; what has no kind becomes an opaque node |
| `importer` | `from_torch` itself: both modes brought together, heads named, the result compared with the original |
"""
