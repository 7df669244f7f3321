# SPDX-License-Identifier: Apache-2.0
# Target report_assets: what write_report puts into the page, in PION_REPORT_ASSETS_DIR.
#   vega.js    the chart library, from the Python package vl-convert-python
#   page.html, page.css, page.js   from lab/report/page
set(PION_REPORT_ASSETS_DIR ${PROJECT_BINARY_DIR}/report_assets)
set(page_dir ${PROJECT_SOURCE_DIR}/lab/report/page)
set(page_scripts
    ${page_dir}/theme.js ${page_dir}/curves.js ${page_dir}/rates.js ${page_dir}/layers.js
    ${page_dir}/exhibits.js ${page_dir}/game.js ${page_dir}/tables.js ${page_dir}/main.js)

find_program(PION_REPORT_PYTHON NAMES python3 python DOC "Python with vl-convert-python"
             HINTS ${PROJECT_SOURCE_DIR}/.venv/bin)

add_custom_command(
  OUTPUT ${PION_REPORT_ASSETS_DIR}/vega.js
  COMMAND ${CMAKE_COMMAND} -E make_directory ${PION_REPORT_ASSETS_DIR}
  COMMAND ${PION_REPORT_PYTHON} ${PROJECT_SOURCE_DIR}/lab/report/bundle.py
          ${PION_REPORT_ASSETS_DIR}/vega.js
  DEPENDS ${PROJECT_SOURCE_DIR}/lab/report/bundle.py
  COMMENT "Bundling the report's chart library"
  VERBATIM)
add_custom_command(
  OUTPUT ${PION_REPORT_ASSETS_DIR}/page.js
  COMMAND ${CMAKE_COMMAND} -E make_directory ${PION_REPORT_ASSETS_DIR}
  COMMAND ${CMAKE_COMMAND} -E cat ${page_scripts} > ${PION_REPORT_ASSETS_DIR}/page.js
  COMMAND ${CMAKE_COMMAND} -E copy ${page_dir}/page.html ${page_dir}/page.css
          ${PION_REPORT_ASSETS_DIR}
  DEPENDS ${page_scripts} ${page_dir}/page.html ${page_dir}/page.css
  COMMENT "Gathering the report's page"
  VERBATIM)
add_custom_target(report_assets DEPENDS ${PION_REPORT_ASSETS_DIR}/vega.js
                                        ${PION_REPORT_ASSETS_DIR}/page.js)
