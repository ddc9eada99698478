"use strict";
// A page that is opened from a disk may start no worker, in which the theme's search runs. There it
// runs in a frame of the page instead; pages of a server have workers and do not need it.
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    #inside;
    #frame = document.createElement("iframe");

    constructor(address) {
      super();
      this.onmessage = null;
      this.#frame.hidden = true;
      this.#frame.title = "Search";
      const place = () => document.body.append(this.#frame);
      this.#inside = new Promise((resolve) => {
        const start = () => {
          place();
          const own = this.#frame.contentWindow;
          // What a worker has: its words to the page, and further scripts, one after the other.
          own.postMessage = (data) => this.#tell(data);
          own.importScripts = async (...addresses) => {
            for (const each of addresses) await load(own, each);
          };
          load(own, address).then(() => resolve(own));
        };
        if (document.body) start();
        else addEventListener("DOMContentLoaded", start);
      });
    }

    async postMessage(data) {
      const own = await this.#inside;
      own.dispatchEvent(new own.MessageEvent("message", { data }));
    }

    terminate() {
      this.#frame.remove();
    }

    #tell(data) {
      const event = new MessageEvent("message", { data });
      this.onmessage?.(event);
      this.dispatchEvent(event);
    }
  }

  const load = (own, address) =>
    new Promise((resolve, reject) => {
      const script = own.document.createElement("script");
      script.src = new URL(address, document.baseURI).href;
      script.onload = resolve;
      script.onerror = reject;
      own.document.head.append(script);
    });

  // By this name the theme's search knows that it runs in a frame.
  window.IFrameWorker = IFrameWorker;
  window.Worker = IFrameWorker;
}
