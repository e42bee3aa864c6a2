#include "kernels/cuda/twins.h"
