"""From any traceable `torch.nn.Module` to a genome.

| module | what it does |
|---|---|
| `tracing` | the module's forward pass as graphs of `torch.fx`, in train and in eval mode |
| `exported` | the same by `torch.export`, for forward passes that `torch.fx` cannot trace |
| `copying` | a copy of the module to work on |
| `held` | its tensors, and their names |
| `chance` | random numbers that would be drawn while it is traced, and the same ones for ever |
| `gradients` | what it does to gradients beyond what its operations do |
| `observing` | what comes out of a call that has no shape rule, for two batch sizes |
| `stand_ins` | what stands for traced values on the way |
| `walking` | from call to call through a traced graph |
| `layers`, `calls` | the tables: which layers, functions and methods have a kind |
| `lowering` | the nodes that come about |
| `programs` | what has no kind: a function of each element, or an opaque node |
| `comparing` | whether the result computes what the original does |
| `importer` | `from_torch` itself: both modes brought together, heads named, the result compared with the original |
"""
