#include "engine/base/error.h"

#include <fmt/format.h>

namespace ioplan {

std::string to_text(const Place& place) {
  if (place.line == 0) return place.file;
  return fmt::format("{}:{}:{}", place.file, place.line, place.col);
}

std::string to_text(const Error& error) {
  std::string text = "error: " + error.message;
  if (!error.place.file.empty()) text = to_text(error.place) + ": " + text;
  if (!error.help.empty()) text += "\nhelp: " + error.help;
  return text;
}

}  // namespace ioplan
