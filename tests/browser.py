"""A real browser, driven by WebDriver, for tests that have one to look with."""

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest


class Browser:
    """Drives headless Chromium through chromedriver's WebDriver protocol."""

    def __init__(self, profile: Path) -> None:
        self.driver = subprocess.Popen(
            ['chromedriver', '--port=0'], stdout=subprocess.PIPE, text=True
        )
        started = next(line for line in self.driver.stdout if 'successfully' in line)
        port = re.search(r'on port (\d+)', started)[1]
        self.url = f'http://127.0.0.1:{port}/session'
        flags = (
            'headless no-sandbox disable-gpu disable-quic no-first-run '
            'disable-background-networking disable-component-update disable-sync '
            f'user-data-dir={profile} window-size=1200,900'
        )
        options = dict(args=[f'--{flag}' for flag in flags.split()])
        logs = dict(browser='ALL', performance='ALL')
        capabilities = {'goog:chromeOptions': options, 'goog:loggingPrefs': logs}
        session = self.send('', capabilities=dict(alwaysMatch=capabilities))
        self.url += '/' + session['sessionId']

    def send(self, path: str, **content):
        request = urllib.request.Request(
            self.url + path,
            json.dumps(content).encode(),
            {'Content-Type': 'application/json'},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)['value']

    def run(self, script: str):
        return self.send('/execute/sync', script=script, args=[])

    def emulate(self, scheme: str, width: int, height: int = 900) -> None:
        """Take a colour scheme, 'light' or 'dark', and a size in pixels."""
        feature = dict(name='prefers-color-scheme', value=scheme)
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        for command, params in {
            'setEmulatedMedia': dict(features=[feature]),
            'setDeviceMetricsOverride': size,
        }.items():
            path = '/goog/cdp/execute'
            self.send(path, cmd=f'Emulation.{command}', params=params)

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        messages = [json.loads(entry['message']) for entry in self.log('performance')]
        return [
            message['message']['params']['request']['url']
            for message in messages
            if message['message']['method'] == 'Network.requestWillBeSent'
        ]

    def log(self, kind: str) -> list[dict]:
        return self.send('/se/log', type=kind)

    def close(self) -> None:
        request = urllib.request.Request(self.url, method='DELETE')
        urllib.request.urlopen(request, timeout=60).close()
        self.driver.terminate()
        self.driver.wait(10)


@pytest.fixture
def browser(tmp_path):
    if not (shutil.which('chromedriver') and shutil.which('chromium')):
        pytest.skip('chromium and chromedriver are not installed')
    browser = Browser(tmp_path / 'profile')
    yield browser
    browser.close()
