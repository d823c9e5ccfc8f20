"""One transformer, composed from a configuration, for training and for serving; parameters have HF's names.

A tensor's name ends in its shape, one letter per dimension, as in `scores_BHTS`. A letter has one meaning:

    A  angles of a position, R / 2               L  MoE layers
    B  sequences                                 M  rows taken from N, as each token's copies for its experts
    C  kv rank: width of MLA's latent            N  tokens of all sequences, one after another
    D  hidden size; a head's, a matrix's inputs  P  nope dim: the part of a head that does not rotate
    E  experts; matrices of any stack            Q  words in a group of packed integers
    F  ffn size; a matrix's outputs              R  rope dim: the part of a head that rotates
    G  groups: key heads, groups of experts,     S  keys that a token may see; tokens of a page
       a prompt's answers, weights of one scale  T  tokens of a sequence
    H  heads                                     U  pages
    J  inputs in a word of packed integers       V  value dim of a head
    K  experts per token                         W  vocabulary
                                                 X  members of a group
"""
