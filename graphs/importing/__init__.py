"""From any traceable `torch.nn.Module` to a genome.

| module | what it does |
|---|---|
| `tracing` | the module's forward pass as graphs of `torch.fx`, in train and in eval mode, and the shapes in them |
| `exported` | the same by `torch.export`, for forward passes that `torch.fx` cannot trace |
| `lowering` | walks those graphs and adds nodes to a draft; what there is no kind for becomes an opaque node |
| `layers` | the table of `torch.nn` layers that have a kind |
| `calls` | the table of functions and methods that have a kind |
| `vision` | functions of torchvision that a trace shows as one call |
| `importer` | `from_torch` itself: both modes brought together, heads named, the result compared with the original |
"""
