// A large host: many functions behind many VT-d units whose registers come in a few variants, and one VM with them all.
#pragma once

#include <string>

#include "engine/model/request.h"

namespace ioplan::bench {

struct HostShape {
  std::size_t functions = 4096;
  std::size_t units = 64;
  std::size_t signatures = 16;  // distinct register pairs, at most 64; unit u has variant u mod signatures
};

// Function f is behind unit f mod units (units without functions are left out), in a group of its own, with the facts
// that a capture of a real machine has. Nothing is unknown; sorted as document/load.h sorts.
Request synthetic_request(const HostShape& shape);

// The same as documents.
std::string to_yaml(const Request& request);
std::string to_json(const Request& request);

}  // namespace ioplan::bench
