// Chromium starts no Worker from a file: URL. There, run the theme's search in a hidden frame in its place: the frame
// loads the worker's script, gets the messages for the worker, and its postMessage() answers.
if (location.protocol === "file:") {
  class FrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.early = []; // messages from before the script has run
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.addEventListener("load", () => this.load(new URL(url, document.baseURI)), { once: true });
      document.body.append(this.frame);
    }

    load(url) {
      const { contentWindow, contentDocument } = this.frame;
      contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = contentDocument.createElement("script");
      script.src = url.href;
      script.addEventListener("load", () => {
        const early = this.early;
        this.early = null;
        early.forEach((data) => this.postMessage(data));
      });
      contentDocument.body.append(script);
    }

    postMessage(data) {
      if (this.early) this.early.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  }
  window.Worker = window.IFrameWorker = FrameWorker; // by the second name the theme's script recognises a frame
}
