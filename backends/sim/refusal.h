// How the simulated kernel says no: an errno, as Linux would give it, and the reason in words, which Linux does not give.
#pragma once

#include <string_view>
#include <tl/expected.hpp>

namespace ioplan::sim {

struct Refusal {
  int errno_value = 0;
  std::string_view reason;  // static text; for rules of the law, the rule's sentence
};

template <class T>
using Answer = tl::expected<T, Refusal>;

inline tl::unexpected<Refusal> refuse(int errno_value, std::string_view reason) {
  return tl::make_unexpected(Refusal{errno_value, reason});
}

}  // namespace ioplan::sim
