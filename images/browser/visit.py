"""Send a text as a visitor does, with the CA of /ca.pem trusted, and print as JSON what the page showed."""

import json
import os
import subprocess
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


def trust(authority: str) -> None:
    """Make the CA one of those that Chromium trusts."""
    store = Path.home() / ".pki" / "nssdb"
    store.mkdir(parents=True)
    database = f"sql:{store}"
    subprocess.run(["certutil", "-N", "-d", database, "--empty-password"], check=True)
    subprocess.run(["certutil", "-A", "-d", database, "-n", "internal CA", "-t", "C,,", "-i", authority], check=True)


def main() -> None:
    """Open the page, send the text, and follow the report without reloading it."""
    trust("/ca.pem")
    options = webdriver.ChromeOptions()
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "disable-background-networking", "no-first-run"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = "/usr/bin/chromium"
    with webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")) as browser:
        wait = WebDriverWait(browser, 30)
        browser.get(os.environ["SITE"])
        browser.find_element(By.ID, "text").send_keys("One fish. Two fish.")
        browser.find_element(By.CSS_SELECTOR, "form button[type=submit]").click()
        state = wait.until(lambda page: page.find_element(By.ID, "state"))
        browser.execute_script("window.loadedOnce = true")
        wait.until(lambda page: page.find_element(By.ID, "state").text == "done")
        print(
            json.dumps(
                {
                    "state": state.text,
                    "words": browser.find_element(By.CSS_SELECTOR, "[data-figure=words]").text,
                    "same_page": browser.execute_script("return window.loadedOnce === true"),
                    "console": [entry["message"] for entry in browser.get_log("browser")],
                }
            )
        )


main()
