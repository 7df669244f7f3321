# SPDX-License-Identifier: Apache-2.0
"""Mirrors a run's metrics.jsonl with TensorBoard, Weights & Biases or Trackio."""
