// A value together with the line that says it.
#pragma once

#include <cstdint>

namespace ioplan::intake {

template <class T>
struct Noted {
  T value{};
  std::uint32_t line = 0;
};

}  // namespace ioplan::intake
