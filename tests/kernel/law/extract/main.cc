// Cuts functions out of Linux's source by name, with everything of the named files that they need, into one C file.
//
//   kernel_extract SOURCE_TREE RECIPE SHIM      the C text goes to stdout
//
// A recipe has two kinds of lines (`#` starts a comment): `from FILE...` names files of the tree, in the order in which
// their pieces are written out; `take NAME...` names the functions of the last of them that are judged. They come with
// their bodies, and with the macros, types, constants, tables and inline functions that they lead to, as far as the
// recipe's files define them. What SHIM defines (C text of ours, preprocessed) is left to it. Every other function that
// is reached becomes one that says its name and ends the program: a judged function cannot quietly run into nothing.
//
// Line numbers are never used to find anything; #line makes the compiler speak of the kernel's own. A name or a file
// that is not there ends the program with what was looked for and where.
#include <iostream>

#include "tests/kernel/law/extract/extraction.h"

int main(int argc, char** argv) {
  using namespace ioplan::extract;
  if (argc != 4) fail("usage: kernel_extract SOURCE_TREE RECIPE SHIM");
  Extraction extraction(read_recipe(argv[2]), argv[1]);
  extraction.leave_to(read_file(argv[3]));
  extraction.run();
  extraction.write(std::cout);
}
