"""`brian2:equations`: pure `NeuronGroup` and `Synapses`, the readable reference.

It presents one sample at a time. Every subexpression of a cell is a stored variable that one
`run_regularly` per stage computes, so that the order inside a step (see `neurosim.plan`) is
explicit:

    before_start   clamps and shared values; early variables and pools, stage by stage
    start          drives: summed Synapses
    groups, 0..    late variables and pools, stage by stage; 3000 holds; 4000 recorders;
                   5000 Synapses (weights to t+dt); 6000 NeuronGroups (potentials to t+dt)
"""
