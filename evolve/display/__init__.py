"""What people see: tables, trees and portraits made of candidates, redrawn on a terminal and plain elsewhere.

Everything here is a pure function of *entries*, the objects that `evolve log --json` prints, but for `console` (where
output goes) and `watching` (what a search tells becomes lines or redraws).
"""
