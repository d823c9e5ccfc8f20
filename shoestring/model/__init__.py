"""One transformer, composed from a configuration, for training and for serving.

Tensors that outlive a statement carry their shape as a suffix, one letter per dimension, as in `scores_BHTS`:

    B sequences       T queries         S keys            N packed tokens
    D hidden          H heads           P nope dim        R rope dim
    V value dim       C kv rank         F ffn             E experts
    K experts/token   G answers/prompt  W vocabulary

Parameters keep their Hugging Face names.
"""
