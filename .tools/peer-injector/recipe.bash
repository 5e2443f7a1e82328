# The peer of the admission benchmark: an injector of equal effect, as controller-runtime's own example has it.
packages=(.)
usual_time='about 2 minutes'
