// What holds for every Host that intake makes: its documents can be read, and say the same.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "engine/document/host_document.h"
#include "engine/document/load.h"
#include "engine/model/host.h"

namespace ioplan::fuzz {

inline void require_round_trip(const Host& host) {
  const std::string text = to_yaml(host);
  const auto read = load_text("host.yaml", text);
  if (read && to_yaml(read->request.host) == text) return;
  std::fprintf(stderr, "%s\n%s\n", read ? "the document says something else" : read.error().message.c_str(), text.c_str());
  std::abort();
}

}  // namespace ioplan::fuzz
