"""What each method of `poste.v1.MomService` does; what a task may do is decided in the scripts of the queue."""
