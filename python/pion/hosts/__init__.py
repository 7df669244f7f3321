# SPDX-License-Identifier: Apache-2.0
"""What single training frameworks need beside an optimizer class. docs/python.md has a table of
hosts; Accelerate, Lightning and GRPOTrainer take a pion optimizer as it is.

pion.hosts.transformers   a factory for the Trainer's and SFTTrainer's optimizer_cls_and_kwargs
pion.hosts.verl           names for verl's FSDP engine, which hands over bare parameters
pion.hosts.lerobot        the optimizer type "pion" of LeRobot's configurations
"""
