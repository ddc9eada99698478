"use strict";
// The theme puts wide tables into a part of the page that scrolls: by the keyboard as well.
document$.subscribe(() => {
  for (const part of document.querySelectorAll(".md-typeset__scrollwrap")) {
    part.tabIndex = 0;
    part.role = "group";
    part.ariaLabel = "Table";
  }
});
